from torch import nn
class Pretrained(nn.Module): pass

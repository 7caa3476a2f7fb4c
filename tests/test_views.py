"""Pictures for measuring: the same one by one and of several people at once, on a GPU of many."""

from __future__ import annotations

import pytest
import tiny_erasure as tiny
import torch

from guide_hub.eg3d import EG3D
from guide_hub.evaluation import views
from guide_hub.evaluation.views import embed_views, render_views, yaw_cameras
from guide_hub.latents import LatentSpace
from guide_hub.recipe import load_recipe


class OnGpu(torch.Tensor):
    """Says that it is on a GPU."""

    @property
    def is_cuda(self) -> bool:
        return True


@pytest.fixture
def model():
    torch.manual_seed(1)
    return EG3D(tiny.config()).eval().requires_grad_(False)


@pytest.mark.parametrize("pixels", [2, 6, 100])  # pictures at once: two of one person, of two, all
def test_people_at_once_have_the_same_pictures(pixels, model, monkeypatch):
    monkeypatch.setattr(views, "GPU_PIXELS", pixels * model.config.img_resolution**2)
    ws = LatentSpace(model).random(5, torch.Generator().manual_seed(2))
    c = yaw_cameras(model, load_recipe("heads").camera, 3)
    calls, render = [], model.render
    monkeypatch.setattr(
        model, "render", lambda planes, ws, c, **how: calls.append(len(c)) or render(planes, ws, c, **how)
    )

    def judge(pictures):
        return pictures.flatten(1)[:, :50]

    apart, seen = render_views(model, ws, c, batch=1), embed_views(model, ws, c, judge, batch=1)
    assert set(calls) == {1}
    calls.clear()
    torch.testing.assert_close(render_views(model, ws, c), apart, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embed_views(model, ws, c, judge), seen, rtol=1e-4, atol=1e-5)
    assert set(calls) == {6, 3}  # of two people, of eight pictures at most; of the last one
    monkeypatch.setattr(
        EG3D, "planes", lambda self, ws, **how: plain(self, ws.as_subclass(torch.Tensor), **how)
    )
    calls.clear()
    together = render_views(model, ws.as_subclass(OnGpu), c, batch=1).as_subclass(torch.Tensor)
    assert max(calls) == min(pixels // 3 * 3 or pixels, 15)
    assert together.shape == apart.shape == (5, 3, 3, 64, 64)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    found = embed_views(model, ws.as_subclass(OnGpu), c, judge, batch=1).as_subclass(torch.Tensor)
    torch.testing.assert_close(found, seen, rtol=1e-4, atol=1e-5)


plain = EG3D.planes

"""Photos and pictures of faces: detection, crop, camera, identity encoders, perceptual distances."""

"""Is the person really gone? Attacks on an erased model, one module each (shared seam: `base`)."""

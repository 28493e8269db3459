"""Random streams: one per sample, so that results do not depend on how samples are batched."""

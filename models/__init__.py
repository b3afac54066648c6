"""Everything torch: policies, entropy scoring, embedders, context extension, training."""

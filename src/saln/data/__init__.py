"""Images, labels, splits, augmentation: what everything after it reads."""

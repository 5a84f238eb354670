"""From a name to batches: data sets, packed arrays, splits, augmentation."""

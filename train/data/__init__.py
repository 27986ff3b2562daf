"""Training data: the training folder, its samples, buckets, batches, crops, captions and caches."""

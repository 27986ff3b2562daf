"""Training data: the training folder, its dataset, buckets, order and caches."""

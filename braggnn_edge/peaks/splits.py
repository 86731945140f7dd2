"""What a peak is used for: the names of the splits, and their numbers in the peak table."""

TRAIN, VALIDATION, TEST, EXCLUDED = 0, 1, 2, 3
SPLITS = ("train", "validation", "test", "excluded")

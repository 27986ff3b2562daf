"""The settings of TrainConfig, by subject: each class holds some of its groups of fields."""

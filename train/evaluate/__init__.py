"""What a model learned and forgot, and the samples it draws."""

"""What a training run needs and no other command does."""

"""What the networks do that come with the suite, in four pictures: `python -m experiments.demo`."""

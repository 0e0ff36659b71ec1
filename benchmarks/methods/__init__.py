"""Studies of the methods: T. stddev, HARD, inverted projection and role-wise schedules."""

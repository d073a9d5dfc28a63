"""Many models on many targets: each cell a task of its own, computed where there is room, and never twice."""

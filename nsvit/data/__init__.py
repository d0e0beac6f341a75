"""Pictures: the embedded benchmark, sets on disk, transforms and corruptions."""

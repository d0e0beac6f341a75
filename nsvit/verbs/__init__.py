"""What each verb of the command line calls: the rule's spec parsed, imports on use, no logic."""

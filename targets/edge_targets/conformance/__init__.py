"""The contract suite: what the runtime relies on in a target, as checks that anybody can run."""

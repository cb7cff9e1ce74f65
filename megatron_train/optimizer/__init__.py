"""AdamW: the project's own flat one, and megatron-core's distributed one."""

"""The model: layers of megatron-core, attention, loss, packing."""

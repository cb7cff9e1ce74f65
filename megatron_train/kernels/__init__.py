"""Which kernels a device can run, and what the device is."""

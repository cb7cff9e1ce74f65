"""What is known of a study's units: records of what is done, leases of what is at work, the products they left."""

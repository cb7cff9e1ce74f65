"""The paper's claims, each as a predicate over evidence."""

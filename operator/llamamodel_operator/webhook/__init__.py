"""The validating admission webhook: its own server, on every replica, with certificates of its own."""

//! The front: carries the services' requests, and holds them while an instance is replaced.

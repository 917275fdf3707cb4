"""Several sidecars with one real engine."""

"""Images as recommenders see them: frozen extractors, denoisers and purification, and what is measured of images."""

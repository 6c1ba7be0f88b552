"""The documentation site: what is generated for it, and its building. `make docs` builds it into `site/`."""

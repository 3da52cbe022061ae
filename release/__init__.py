"""`make release`: the version in every place, and what a release hands out. Not part of the product or its image."""

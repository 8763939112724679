"""The data doctor: what is wrong with annotated photos, before anything is made of them."""

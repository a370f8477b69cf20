"""Networks over whole crystal structures: any property of a user's table, scalars and tensors."""

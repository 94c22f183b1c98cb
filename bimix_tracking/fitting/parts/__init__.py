"""What a fit is made of beside its laws: what is asked of it as arrays, how laws are stacked, how it is read."""

"""Operations whose best form depends on the platform: one file for each of them.

Contract of these files: all forms of an operation agree to rounding, and
`jax.lax.platform_dependent` chooses among them. The comments say what each one costs.
"""

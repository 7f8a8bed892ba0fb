"""Analyses of a trained network: one file per question of the paper.

Contract of this folder: each file maps a network, its variables and batches to plain
rows and arrays; nothing here draws, saves or prints.
"""

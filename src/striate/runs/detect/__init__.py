"""How well is one class found, and from which probability on?"""

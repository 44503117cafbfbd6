"""What did it see, and why did it answer so?"""

"""What will the network see, and what may that spoil?"""

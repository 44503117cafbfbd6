"""What is this network, without running it?"""

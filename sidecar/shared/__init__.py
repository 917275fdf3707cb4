"""What several sidecars know together: an engine of Valkey or Redis. No other folder uses its client.

engine  one call of script.lua for each thing to be done there
"""

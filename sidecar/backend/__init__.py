"""Asking the meeting service.

guard     one endpoint's calls: breaker, places, retries
bulkhead  how many calls may be under way, and which room is next
client    HTTP to the backend
pool      its connections: which of them may carry a question
names     the backend's name in DNS
"""

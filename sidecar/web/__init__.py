"""THE HTTP in, for Prosody and for operators.

listeners    the sockets                           admin        what operators ask and order
connections  who is slow, who never asks           status_page  the same for a browser
auth         who has the token
server       webhooks as an aiohttp server
webhooks     requests -> engine -> responses
"""

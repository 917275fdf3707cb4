"""HTTP in: the webhook listener for Prosody, and the admin listener for operators.

listeners    the sockets                           webhooks     one request of Prosody, from start to end
connections  slow and silent clients               requests     path, head and body of a request
auth         the tokens of both listeners          responses    answers as bytes of HTTP
server       webhooks as an aiohttp server         admin        requests of operators
                                                   status_page  the status in a browser
"""

"""What is right? Pure values and functions: no clock, no randomness, no input or output, no logger.

model        what is asked, answered and remembered    wire         requests of Prosody as questions
policy       the plan for a question, and what         classify     what an answer of the backend means
             follows from an outcome                   strict_json  JSON that all readers understand alike
breaker      when the backend may be asked             answers      what Prosody gets
retry        when to ask once more                     durations    durations as people read them
schedule     whose event is delivered next             events       the values of the outbox
addresses    which addresses are this machine's
"""

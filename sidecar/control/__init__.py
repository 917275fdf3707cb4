"""Orders of the meeting service: kept until the module in Prosody has carried them out.

take -> what is remembered is taken away -> on disk -> sent, in order within a room -> acknowledged -> the outcome
                                                    -> no module connected, or not done in time: pending
"""

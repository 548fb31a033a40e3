"""The wire contract of `runlane.v1`, used by both ends. Sans-I/O: nothing here opens, reads or waits.

`messages` (the frames), `codec` (frames to text and back), `conversation` (their legal order), `payloads`,
`states`, `ids`, `limits`, `closing` (close codes) and `errors`. PROTOCOL.md beside this file is the public
page.
"""

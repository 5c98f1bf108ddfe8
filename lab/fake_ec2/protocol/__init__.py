"""The EC2 query protocol, both ways, from botocore's service model.

model.py      loads the model
parsing.py    form fields to parameters, checked against the call's input shape
rendering.py  answers and errors to XML, by the call's output shape
"""

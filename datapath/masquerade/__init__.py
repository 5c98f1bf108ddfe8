"""Masquerade: what leaves the cluster bears the node's address; what stays inside bears the pod's.

agent_file  the file of the ip-masq-agent: read, checked, watched
ranges      where pods' own addresses are good, brought into the map `cidrs`
nat         connections that are masqueraded, for people
"""

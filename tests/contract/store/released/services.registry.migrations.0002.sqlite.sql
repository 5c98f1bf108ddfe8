PRAGMA page_size=4096;
BEGIN TRANSACTION;
DROP TABLE IF EXISTS endpoints;
CREATE TABLE endpoints (
	node VARCHAR NOT NULL, 
	id VARCHAR NOT NULL, 
	pod VARCHAR NOT NULL, 
	addresses JSON NOT NULL, 
	mac VARCHAR NOT NULL, 
	interface_id VARCHAR NOT NULL, 
	labels JSON NOT NULL, 
	created_at DOUBLE NOT NULL, identity BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (node, id), 
	FOREIGN KEY(node) REFERENCES nodes (name) ON DELETE CASCADE
);
INSERT INTO endpoints VALUES('node-1','c1/eth0','default/web','["10.0.0.7"]','02:00','eni-1','{"app":"web"}',1000.25,256);
DROP TABLE IF EXISTS identities;
CREATE TABLE identities (
	number BIGINT NOT NULL, 
	digest VARCHAR NOT NULL, 
	labels JSON NOT NULL, 
	PRIMARY KEY (number), 
	CONSTRAINT identities_digest_key UNIQUE (digest)
);
INSERT INTO identities VALUES(256,'04e8ecbeb81a112dd4286c65186f633b25221f2fca2e475a49e4c518217dc8a5','{"app":"web"}');
DROP TABLE IF EXISTS leadership;
CREATE TABLE leadership (
	name VARCHAR NOT NULL, 
	fence BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO leadership VALUES('registry',1);
DROP TABLE IF EXISTS nodes;
CREATE TABLE nodes (
	name VARCHAR NOT NULL, 
	addresses JSON NOT NULL, 
	labels JSON NOT NULL, 
	cloud VARCHAR NOT NULL, 
	instance_id VARCHAR NOT NULL, 
	instance_type VARCHAR NOT NULL, 
	zone VARCHAR NOT NULL, 
	version VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	registered_at DOUBLE NOT NULL, 
	heartbeat_at DOUBLE NOT NULL, pod_cidrs JSON DEFAULT '[]' NOT NULL, routing_mode VARCHAR DEFAULT '' NOT NULL, tunnel_address VARCHAR DEFAULT '' NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO nodes VALUES('node-1','["10.0.0.10","10.0.0.11"]','{"rack":"7"}','aws','i-1','m5.large','a','0.1.0','lost',1000.125,1001.5,'["10.1.0.0/24","fd00:1::/64"]','tunnel','10.0.0.11');
DROP TABLE IF EXISTS registry_version;
CREATE TABLE registry_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT registry_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO registry_version VALUES('0002');
COMMIT TRANSACTION;

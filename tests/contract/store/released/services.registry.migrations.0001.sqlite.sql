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
	created_at DOUBLE NOT NULL, 
	PRIMARY KEY (node, id), 
	FOREIGN KEY(node) REFERENCES nodes (name) ON DELETE CASCADE
);
INSERT INTO endpoints VALUES('node-1','c1/eth0','default/web','["10.0.0.7"]','02:00','eni-1','{"app":"web"}',1000.25);
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
	heartbeat_at DOUBLE NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO nodes VALUES('node-1','["10.0.0.10","10.0.0.11"]','{"rack":"7"}','aws','i-1','m5.large','a','0.1.0','lost',1000.125,1001.5);
DROP TABLE IF EXISTS registry_version;
CREATE TABLE registry_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT registry_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO registry_version VALUES('0001');
COMMIT TRANSACTION;

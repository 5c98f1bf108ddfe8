PRAGMA page_size=4096;
BEGIN TRANSACTION;
DROP TABLE IF EXISTS addresses;
CREATE TABLE addresses (
	vpc_id VARCHAR NOT NULL, 
	address VARCHAR NOT NULL, 
	interface_id VARCHAR NOT NULL, 
	position INTEGER NOT NULL, 
	state VARCHAR NOT NULL, 
	PRIMARY KEY (vpc_id, address), 
	FOREIGN KEY(interface_id) REFERENCES interfaces (id) ON DELETE CASCADE
);
INSERT INTO addresses VALUES('vpc-1','10.0.0.7','eni-1',0,'marked');
INSERT INTO addresses VALUES('vpc-1','10.0.0.1','eni-1',1,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.16','eni-0',0,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.17','eni-0',1,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.18','eni-0',2,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.19','eni-0',3,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.20','eni-0',4,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.21','eni-0',5,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.22','eni-0',6,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.23','eni-0',7,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.24','eni-0',8,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.25','eni-0',9,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.26','eni-0',10,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.27','eni-0',11,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.28','eni-0',12,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.29','eni-0',13,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.30','eni-0',14,'available');
INSERT INTO addresses VALUES('vpc-1','10.0.1.31','eni-0',15,'available');
INSERT INTO addresses VALUES('vpc-2','10.0.0.7','eni-2',0,'releasing');
CREATE INDEX ix_addresses_interface_id ON addresses (interface_id);
DROP TABLE IF EXISTS blocks;
CREATE TABLE blocks (
	subnet_id VARCHAR NOT NULL, 
	until_at DOUBLE NOT NULL, 
	why VARCHAR NOT NULL, 
	PRIMARY KEY (subnet_id)
);
INSERT INTO blocks VALUES('subnet-2',1300.5,'full');
DROP TABLE IF EXISTS dead_letters;
CREATE TABLE dead_letters (
	id VARCHAR NOT NULL, 
	intent JSON NOT NULL, 
	why VARCHAR NOT NULL, 
	died_at DOUBLE NOT NULL, 
	replays INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO dead_letters VALUES('dead-1','{"id":"intent-1","kind":"allocate","node":"node-1","want":4,"addresses":["10.0.0.1"],"steps":[{"number":0,"operation":"assign-addresses","target":"eni-1","arguments":{"count":4},"client_token":"t-1","result":{"addresses":["10.0.0.7"],"interface":{"id":"eni-1"}}},{"number":1,"operation":"assign-addresses","target":"eni-1","arguments":{"count":4},"client_token":"t-1","result":null}],"attempts":2,"created_at":1000.25,"not_before_at":1001.5,"last_error":"throttled","holder":"worker-1","fence":7,"lease_until_at":1060.0}','subnet full',1002.5,1);
DROP TABLE IF EXISTS instances;
CREATE TABLE instances (
	id VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	zone VARCHAR NOT NULL, 
	vpc_id VARCHAR NOT NULL, 
	subnet_id VARCHAR NOT NULL, 
	tags JSON NOT NULL, 
	security_group_ids JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO instances VALUES('i-1','m5.large','a','vpc-1','','{}','[]');
INSERT INTO instances VALUES('i-2','m5.large','a','vpc-2','','{}','[]');
DROP TABLE IF EXISTS intents;
CREATE TABLE intents (
	id VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	node VARCHAR NOT NULL, 
	want INTEGER NOT NULL, 
	addresses JSON NOT NULL, 
	attempts INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	not_before_at DOUBLE NOT NULL, 
	last_error VARCHAR NOT NULL, 
	holder VARCHAR NOT NULL, 
	fence BIGINT NOT NULL, 
	lease_until_at DOUBLE NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO intents VALUES('intent-1','allocate','node-1',4,'["10.0.0.1"]',2,1000.25,1001.5,'throttled','worker-1',7,1060.0);
DROP TABLE IF EXISTS interfaces;
CREATE TABLE interfaces (
	id VARCHAR NOT NULL, 
	instance_id VARCHAR NOT NULL, 
	position INTEGER NOT NULL, 
	mac VARCHAR NOT NULL, 
	subnet_id VARCHAR NOT NULL, 
	vpc_id VARCHAR NOT NULL, 
	zone VARCHAR NOT NULL, 
	primary_address VARCHAR NOT NULL, 
	attachment_id VARCHAR NOT NULL, 
	device_index INTEGER NOT NULL, 
	network_card INTEGER NOT NULL, 
	security_group_ids JSON NOT NULL, 
	tags JSON NOT NULL, 
	delete_on_termination BOOLEAN NOT NULL, 
	status VARCHAR NOT NULL, 
	created_at DOUBLE NOT NULL, prefixes JSON DEFAULT '[]' NOT NULL, ipv6_addresses JSON DEFAULT '[]' NOT NULL, ipv6_prefixes JSON DEFAULT '[]' NOT NULL, public_address_id VARCHAR DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(instance_id) REFERENCES instances (id) ON DELETE CASCADE
);
INSERT INTO interfaces VALUES('eni-0','i-1',0,'02:00:00:00:00:01','subnet-1','vpc-1','a','10.0.9.9','',1,0,'[]','{}',0,'in-use',0.0,'["10.0.1.16/28"]','[]','["fd00:1::1000:0:0:0/80"]','');
INSERT INTO interfaces VALUES('eni-1','i-1',1,'02:00:00:00:00:01','subnet-1','vpc-1','a','10.0.9.9','',1,0,'[]','{"plimsoll":"yes"}',0,'in-use',999.125,'[]','[]','[]','');
INSERT INTO interfaces VALUES('eni-2','i-2',0,'02:00:00:00:00:02','subnet-9','vpc-2','a','10.0.9.9','',0,0,'[]','{}',0,'in-use',0.0,'[]','[]','[]','');
CREATE INDEX ix_interfaces_instance_id ON interfaces (instance_id);
DROP TABLE IF EXISTS ipam_version;
CREATE TABLE ipam_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT ipam_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO ipam_version VALUES('0005');
DROP TABLE IF EXISTS leadership;
CREATE TABLE leadership (
	pool VARCHAR NOT NULL, 
	holder VARCHAR NOT NULL, 
	fence BIGINT NOT NULL, 
	until_at DOUBLE NOT NULL, 
	PRIMARY KEY (pool)
);
INSERT INTO leadership VALUES('pool','',1,0.0);
DROP TABLE IF EXISTS limits;
CREATE TABLE limits (
	instance_type VARCHAR NOT NULL, 
	interfaces INTEGER NOT NULL, 
	ipv4_per_interface INTEGER NOT NULL, 
	ipv6_per_interface INTEGER NOT NULL, 
	prefixes BOOLEAN NOT NULL, 
	network_cards INTEGER NOT NULL, addresses_per_instance INTEGER DEFAULT '0' NOT NULL, card_interfaces JSON DEFAULT '[]' NOT NULL, 
	PRIMARY KEY (instance_type)
);
INSERT INTO limits VALUES('m5.large',3,10,10,1,2,0,'[2,1]');
DROP TABLE IF EXISTS memos;
CREATE TABLE memos (
	name VARCHAR NOT NULL, 
	body JSON NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO memos VALUES('level','{"level":"no-release","until_at":2000.5,"why":"moving"}');
DROP TABLE IF EXISTS nodes;
CREATE TABLE nodes (
	name VARCHAR NOT NULL, 
	instance_id VARCHAR NOT NULL, 
	instance_type VARCHAR NOT NULL, 
	pre_allocate INTEGER NOT NULL, 
	min_allocate INTEGER NOT NULL, 
	max_allocate INTEGER NOT NULL, 
	max_above_watermark INTEGER NOT NULL, 
	first_interface_index INTEGER NOT NULL, 
	subnet_ids JSON NOT NULL, 
	subnet_tags JSON NOT NULL, 
	security_group_ids JSON NOT NULL, 
	security_group_tags JSON NOT NULL, 
	exclude_interface_tags JSON NOT NULL, 
	delete_on_termination BOOLEAN NOT NULL, 
	release_excess BOOLEAN NOT NULL, 
	labels JSON NOT NULL, prefix_delegation BOOLEAN DEFAULT 0 NOT NULL, ipv6 BOOLEAN DEFAULT 0 NOT NULL, use_primary_address BOOLEAN DEFAULT 0 NOT NULL, public_address_tags JSON DEFAULT '{}' NOT NULL, policy JSON DEFAULT '{}' NOT NULL, subnet_policy VARCHAR DEFAULT 'most-free' NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO nodes VALUES('node-1','i-1','',8,4,20,2,0,'["subnet-1"]','{"tier":"pods"}','[]','{}','{"own":"no"}',0,1,'{"rack":"7"}',1,0,0,'{"pool":"a"}','{"warm_up":4}','ordered');
DROP TABLE IF EXISTS security_groups;
CREATE TABLE security_groups (
	id VARCHAR NOT NULL, 
	vpc_id VARCHAR NOT NULL, 
	tags JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO security_groups VALUES('sg-1','vpc-1','{"a":"b"}');
DROP TABLE IF EXISTS steps;
CREATE TABLE steps (
	intent_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	operation VARCHAR NOT NULL, 
	target VARCHAR NOT NULL, 
	arguments JSON NOT NULL, 
	client_token VARCHAR NOT NULL, 
	result JSON, 
	PRIMARY KEY (intent_id, number), 
	FOREIGN KEY(intent_id) REFERENCES intents (id) ON DELETE CASCADE
);
INSERT INTO steps VALUES('intent-1',0,'assign-addresses','eni-1','{"count":4}','t-1','{"addresses":["10.0.0.7"],"interface":{"id":"eni-1"}}');
INSERT INTO steps VALUES('intent-1',1,'assign-addresses','eni-1','{"count":4}','t-1',NULL);
DROP TABLE IF EXISTS subnets;
CREATE TABLE subnets (
	id VARCHAR NOT NULL, 
	cidr VARCHAR NOT NULL, 
	zone VARCHAR NOT NULL, 
	vpc_id VARCHAR NOT NULL, 
	free INTEGER NOT NULL, 
	tags JSON NOT NULL, 
	vpc_cidrs JSON NOT NULL, gateway VARCHAR DEFAULT '' NOT NULL, ipv6_cidr VARCHAR DEFAULT '' NOT NULL, free_prefixes INTEGER, 
	PRIMARY KEY (id)
);
INSERT INTO subnets VALUES('subnet-1','10.0.0.0/24','a','vpc-1',200,'{"tier":"pods"}','["10.0.0.0/16"]','','fd00:1::/64',3);
COMMIT TRANSACTION;

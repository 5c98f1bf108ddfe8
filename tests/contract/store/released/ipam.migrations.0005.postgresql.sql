SELECT pg_catalog.set_config('search_path', '', false);
CREATE TABLE public.addresses (
    vpc_id character varying NOT NULL,
    address character varying NOT NULL,
    interface_id character varying NOT NULL,
    "position" integer NOT NULL,
    state character varying NOT NULL
);
CREATE TABLE public.blocks (
    subnet_id character varying NOT NULL,
    until_at double precision NOT NULL,
    why character varying NOT NULL
);
CREATE TABLE public.dead_letters (
    id character varying NOT NULL,
    intent json NOT NULL,
    why character varying NOT NULL,
    died_at double precision NOT NULL,
    replays integer NOT NULL
);
CREATE TABLE public.instances (
    id character varying NOT NULL,
    type character varying NOT NULL,
    zone character varying NOT NULL,
    vpc_id character varying NOT NULL,
    subnet_id character varying NOT NULL,
    tags json NOT NULL,
    security_group_ids json NOT NULL
);
CREATE TABLE public.intents (
    id character varying NOT NULL,
    kind character varying NOT NULL,
    node character varying NOT NULL,
    want integer NOT NULL,
    addresses json NOT NULL,
    attempts integer NOT NULL,
    created_at double precision NOT NULL,
    not_before_at double precision NOT NULL,
    last_error character varying NOT NULL,
    holder character varying NOT NULL,
    fence bigint NOT NULL,
    lease_until_at double precision NOT NULL
);
CREATE TABLE public.interfaces (
    id character varying NOT NULL,
    instance_id character varying NOT NULL,
    "position" integer NOT NULL,
    mac character varying NOT NULL,
    subnet_id character varying NOT NULL,
    vpc_id character varying NOT NULL,
    zone character varying NOT NULL,
    primary_address character varying NOT NULL,
    attachment_id character varying NOT NULL,
    device_index integer NOT NULL,
    network_card integer NOT NULL,
    security_group_ids json NOT NULL,
    tags json NOT NULL,
    delete_on_termination boolean NOT NULL,
    status character varying NOT NULL,
    created_at double precision NOT NULL,
    prefixes json DEFAULT '[]'::json NOT NULL,
    ipv6_addresses json DEFAULT '[]'::json NOT NULL,
    ipv6_prefixes json DEFAULT '[]'::json NOT NULL,
    public_address_id character varying DEFAULT ''::character varying NOT NULL
);
CREATE TABLE public.ipam_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.leadership (
    pool character varying NOT NULL,
    holder character varying NOT NULL,
    fence bigint NOT NULL,
    until_at double precision NOT NULL
);
CREATE TABLE public.limits (
    instance_type character varying NOT NULL,
    interfaces integer NOT NULL,
    ipv4_per_interface integer NOT NULL,
    ipv6_per_interface integer NOT NULL,
    prefixes boolean NOT NULL,
    network_cards integer NOT NULL,
    addresses_per_instance integer DEFAULT 0 NOT NULL,
    card_interfaces json DEFAULT '[]'::json NOT NULL
);
CREATE TABLE public.memos (
    name character varying NOT NULL,
    body json NOT NULL
);
CREATE TABLE public.nodes (
    name character varying NOT NULL,
    instance_id character varying NOT NULL,
    instance_type character varying NOT NULL,
    pre_allocate integer NOT NULL,
    min_allocate integer NOT NULL,
    max_allocate integer NOT NULL,
    max_above_watermark integer NOT NULL,
    first_interface_index integer NOT NULL,
    subnet_ids json NOT NULL,
    subnet_tags json NOT NULL,
    security_group_ids json NOT NULL,
    security_group_tags json NOT NULL,
    exclude_interface_tags json NOT NULL,
    delete_on_termination boolean NOT NULL,
    release_excess boolean NOT NULL,
    labels json NOT NULL,
    prefix_delegation boolean DEFAULT false NOT NULL,
    ipv6 boolean DEFAULT false NOT NULL,
    use_primary_address boolean DEFAULT false NOT NULL,
    public_address_tags json DEFAULT '{}'::json NOT NULL,
    policy json DEFAULT '{}'::json NOT NULL,
    subnet_policy character varying DEFAULT 'most-free'::character varying NOT NULL
);
CREATE TABLE public.security_groups (
    id character varying NOT NULL,
    vpc_id character varying NOT NULL,
    tags json NOT NULL
);
CREATE TABLE public.steps (
    intent_id character varying NOT NULL,
    number integer NOT NULL,
    operation character varying NOT NULL,
    target character varying NOT NULL,
    arguments json NOT NULL,
    client_token character varying NOT NULL,
    result json
);
CREATE TABLE public.subnets (
    id character varying NOT NULL,
    cidr character varying NOT NULL,
    zone character varying NOT NULL,
    vpc_id character varying NOT NULL,
    free integer NOT NULL,
    tags json NOT NULL,
    vpc_cidrs json NOT NULL,
    gateway character varying DEFAULT ''::character varying NOT NULL,
    ipv6_cidr character varying DEFAULT ''::character varying NOT NULL,
    free_prefixes integer
);
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.0.1', 'eni-1', 1, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.0.7', 'eni-1', 0, 'marked');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.16', 'eni-0', 0, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.17', 'eni-0', 1, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.18', 'eni-0', 2, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.19', 'eni-0', 3, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.20', 'eni-0', 4, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.21', 'eni-0', 5, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.22', 'eni-0', 6, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.23', 'eni-0', 7, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.24', 'eni-0', 8, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.25', 'eni-0', 9, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.26', 'eni-0', 10, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.27', 'eni-0', 11, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.28', 'eni-0', 12, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.29', 'eni-0', 13, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.30', 'eni-0', 14, 'available');
INSERT INTO public.addresses VALUES ('vpc-1', '10.0.1.31', 'eni-0', 15, 'available');
INSERT INTO public.addresses VALUES ('vpc-2', '10.0.0.7', 'eni-2', 0, 'releasing');
INSERT INTO public.blocks VALUES ('subnet-2', 1300.5, 'full');
INSERT INTO public.dead_letters VALUES ('dead-1', '{"id":"intent-1","kind":"allocate","node":"node-1","want":4,"addresses":["10.0.0.1"],"steps":[{"number":0,"operation":"assign-addresses","target":"eni-1","arguments":{"count":4},"client_token":"t-1","result":{"addresses":["10.0.0.7"],"interface":{"id":"eni-1"}}},{"number":1,"operation":"assign-addresses","target":"eni-1","arguments":{"count":4},"client_token":"t-1","result":null}],"attempts":2,"created_at":1000.25,"not_before_at":1001.5,"last_error":"throttled","holder":"worker-1","fence":7,"lease_until_at":1060.0}', 'subnet full', 1002.5, 1);
INSERT INTO public.instances VALUES ('i-1', 'm5.large', 'a', 'vpc-1', '', '{}', '[]');
INSERT INTO public.instances VALUES ('i-2', 'm5.large', 'a', 'vpc-2', '', '{}', '[]');
INSERT INTO public.intents VALUES ('intent-1', 'allocate', 'node-1', 4, '["10.0.0.1"]', 2, 1000.25, 1001.5, 'throttled', 'worker-1', 7, 1060);
INSERT INTO public.interfaces VALUES ('eni-1', 'i-1', 1, '02:00:00:00:00:01', 'subnet-1', 'vpc-1', 'a', '10.0.9.9', '', 1, 0, '[]', '{"plimsoll":"yes"}', false, 'in-use', 999.125, '[]', '[]', '[]', '');
INSERT INTO public.interfaces VALUES ('eni-0', 'i-1', 0, '02:00:00:00:00:01', 'subnet-1', 'vpc-1', 'a', '10.0.9.9', '', 1, 0, '[]', '{}', false, 'in-use', 0, '["10.0.1.16/28"]', '[]', '["fd00:1::1000:0:0:0/80"]', '');
INSERT INTO public.interfaces VALUES ('eni-2', 'i-2', 0, '02:00:00:00:00:02', 'subnet-9', 'vpc-2', 'a', '10.0.9.9', '', 0, 0, '[]', '{}', false, 'in-use', 0, '[]', '[]', '[]', '');
INSERT INTO public.ipam_version VALUES ('0005');
INSERT INTO public.leadership VALUES ('pool', '', 1, 0);
INSERT INTO public.limits VALUES ('m5.large', 3, 10, 10, true, 2, 0, '[2,1]');
INSERT INTO public.memos VALUES ('level', '{"level":"no-release","until_at":2000.5,"why":"moving"}');
INSERT INTO public.nodes VALUES ('node-1', 'i-1', '', 8, 4, 20, 2, 0, '["subnet-1"]', '{"tier":"pods"}', '[]', '{}', '{"own":"no"}', false, true, '{"rack":"7"}', true, false, false, '{"pool":"a"}', '{"warm_up":4}', 'ordered');
INSERT INTO public.security_groups VALUES ('sg-1', 'vpc-1', '{"a":"b"}');
INSERT INTO public.steps VALUES ('intent-1', 0, 'assign-addresses', 'eni-1', '{"count":4}', 't-1', '{"addresses":["10.0.0.7"],"interface":{"id":"eni-1"}}');
INSERT INTO public.steps VALUES ('intent-1', 1, 'assign-addresses', 'eni-1', '{"count":4}', 't-1', NULL);
INSERT INTO public.subnets VALUES ('subnet-1', '10.0.0.0/24', 'a', 'vpc-1', 200, '{"tier":"pods"}', '["10.0.0.0/16"]', '', 'fd00:1::/64', 3);
ALTER TABLE ONLY public.addresses
    ADD CONSTRAINT addresses_pkey PRIMARY KEY (vpc_id, address);
ALTER TABLE ONLY public.blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (subnet_id);
ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.instances
    ADD CONSTRAINT instances_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.intents
    ADD CONSTRAINT intents_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.interfaces
    ADD CONSTRAINT interfaces_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.ipam_version
    ADD CONSTRAINT ipam_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.leadership
    ADD CONSTRAINT leadership_pkey PRIMARY KEY (pool);
ALTER TABLE ONLY public.limits
    ADD CONSTRAINT limits_pkey PRIMARY KEY (instance_type);
ALTER TABLE ONLY public.memos
    ADD CONSTRAINT memos_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.security_groups
    ADD CONSTRAINT security_groups_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.steps
    ADD CONSTRAINT steps_pkey PRIMARY KEY (intent_id, number);
ALTER TABLE ONLY public.subnets
    ADD CONSTRAINT subnets_pkey PRIMARY KEY (id);
CREATE INDEX ix_addresses_interface_id ON public.addresses USING btree (interface_id);
CREATE INDEX ix_interfaces_instance_id ON public.interfaces USING btree (instance_id);
ALTER TABLE ONLY public.addresses
    ADD CONSTRAINT addresses_interface_id_fkey FOREIGN KEY (interface_id) REFERENCES public.interfaces(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.interfaces
    ADD CONSTRAINT interfaces_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES public.instances(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.steps
    ADD CONSTRAINT steps_intent_id_fkey FOREIGN KEY (intent_id) REFERENCES public.intents(id) ON DELETE CASCADE;

SELECT pg_catalog.set_config('search_path', '', false);
CREATE TABLE public.endpoints (
    node character varying NOT NULL,
    id character varying NOT NULL,
    pod character varying NOT NULL,
    addresses json NOT NULL,
    mac character varying NOT NULL,
    interface_id character varying NOT NULL,
    labels json NOT NULL,
    created_at double precision NOT NULL,
    identity bigint DEFAULT '0'::bigint NOT NULL
);
CREATE TABLE public.identities (
    number bigint NOT NULL,
    digest character varying NOT NULL,
    labels json NOT NULL
);
CREATE TABLE public.leadership (
    name character varying NOT NULL,
    fence bigint NOT NULL
);
CREATE TABLE public.nodes (
    name character varying NOT NULL,
    addresses json NOT NULL,
    labels json NOT NULL,
    cloud character varying NOT NULL,
    instance_id character varying NOT NULL,
    instance_type character varying NOT NULL,
    zone character varying NOT NULL,
    version character varying NOT NULL,
    state character varying NOT NULL,
    registered_at double precision NOT NULL,
    heartbeat_at double precision NOT NULL,
    pod_cidrs json DEFAULT '[]'::json NOT NULL,
    routing_mode character varying DEFAULT ''::character varying NOT NULL,
    tunnel_address character varying DEFAULT ''::character varying NOT NULL
);
CREATE TABLE public.registry_version (
    version_num character varying(32) NOT NULL
);
INSERT INTO public.endpoints VALUES ('node-1', 'c1/eth0', 'default/web', '["10.0.0.7"]', '02:00', 'eni-1', '{"app":"web"}', 1000.25, 256);
INSERT INTO public.identities VALUES (256, '04e8ecbeb81a112dd4286c65186f633b25221f2fca2e475a49e4c518217dc8a5', '{"app":"web"}');
INSERT INTO public.leadership VALUES ('registry', 1);
INSERT INTO public.nodes VALUES ('node-1', '["10.0.0.10","10.0.0.11"]', '{"rack":"7"}', 'aws', 'i-1', 'm5.large', 'a', '0.1.0', 'lost', 1000.125, 1001.5, '["10.1.0.0/24","fd00:1::/64"]', 'tunnel', '10.0.0.11');
INSERT INTO public.registry_version VALUES ('0002');
ALTER TABLE ONLY public.endpoints
    ADD CONSTRAINT endpoints_pkey PRIMARY KEY (node, id);
ALTER TABLE ONLY public.identities
    ADD CONSTRAINT identities_digest_key UNIQUE (digest);
ALTER TABLE ONLY public.identities
    ADD CONSTRAINT identities_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.leadership
    ADD CONSTRAINT leadership_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.registry_version
    ADD CONSTRAINT registry_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.endpoints
    ADD CONSTRAINT endpoints_node_fkey FOREIGN KEY (node) REFERENCES public.nodes(name) ON DELETE CASCADE;
